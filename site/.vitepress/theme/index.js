import DefaultTheme from 'vitepress/theme-without-fonts'
import { h } from 'vue'
import { AgeFigure } from './age-figure.js'
import './style.css'

export default {
  extends: DefaultTheme,
  Layout: () => h(DefaultTheme.Layout, null, { 'home-hero-image': () => h(AgeFigure) }),
}
